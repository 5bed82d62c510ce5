"""Many points of the link: run, resumed, summarised, as tables and figures."""
