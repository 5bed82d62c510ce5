"""Ray tracing by Sionna RT, which is loaded with the first name that needs it."""
