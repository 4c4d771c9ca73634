"""Hardware profiles from measurements on this machine: devices, links, and what sessions add to both."""
