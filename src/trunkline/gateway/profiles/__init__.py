"""Profiles: how one kind of device frames, says who it is, beats, takes commands and answers."""

from trunkline.gateway.profiles.line import Beat, LineProfile, Said, Store

__all__ = ["Beat", "LineProfile", "Said", "Store"]
