"""The blocks of the downlink: from bits, channels and estimates to decoded blocks."""
