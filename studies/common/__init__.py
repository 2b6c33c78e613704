"""What the studies share. Nothing here runs by itself."""
