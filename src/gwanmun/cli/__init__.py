"""The command line: parsing of arguments and printing. What commands do is in `app`."""
