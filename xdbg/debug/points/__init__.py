"""Break points and watch points, their conditions and commands."""
