"""Side networks that were trained apart, used together."""
