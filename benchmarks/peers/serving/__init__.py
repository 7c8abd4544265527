"""Code that runs inside the servers: under each one's own interpreter, with its own packages."""
