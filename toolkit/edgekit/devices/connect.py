"""Open the agent of a device that a devices file names."""

from __future__ import annotations

from edgekit.core.errors import RecipeError
from edgekit.core.places import cache_home
from edgekit.core.plugins import pick
from edgekit.devices.agents import Agent, Place
from edgekit.devices.profiles import Profile


def agent_of(profile: Profile) -> Agent:
    """Return the agent of a device; nothing is sent yet.

    Raises:
        RecipeError: The device's entry does not say how to reach it, or names an unknown kind of connection.
    """
    if not profile.reachable:
        raise RecipeError(
            f"{profile.name}: its entry does not say how to reach it", hint="Give it `ssh: user@host`."
        )
    kind = profile.kind or "ssh"
    connection = pick("devices", kind, what=f"{profile.name}: kind").connect(profile.ssh)
    usual = Place()
    root = profile.root or (str(cache_home() / "agent") if kind == "local" else usual.root)
    # A login begins in the home folder, and what is quoted for a shell keeps its "~".
    root = root.removeprefix("~/") if kind == "ssh" else root
    place = Place(root=root, python=profile.python or usual.python, lock=profile.lock or usual.lock)
    return Agent(profile.name, connection, place)
