"""Where the bytes are: `base` is the port, `local` keeps them in sparse files."""
