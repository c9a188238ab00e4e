"""Device profiles and how they match a machine."""
