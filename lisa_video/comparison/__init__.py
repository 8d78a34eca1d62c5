"""Plain against LISA: the same start, seeds and data order, a declared grid, and curves with intervals."""
