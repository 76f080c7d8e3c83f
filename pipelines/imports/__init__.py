"""Text of other kinds than WET files, read as pages: dumps of Wikipedia, books, data sets."""
