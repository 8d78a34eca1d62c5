"""Videos longer than what a backbone takes at once: windows, their noise, their text, their seams."""
