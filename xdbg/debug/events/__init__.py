"""What stops the guest beside break points, watch points and steps; and the reasons, for people."""
