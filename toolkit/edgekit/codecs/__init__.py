"""Codecs of sensors and features: what turns a signal into bytes on a device, and bytes into values."""
