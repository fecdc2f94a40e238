"""The project's setting of this slice: the channel that is told when nobody else is."""

from sqlalchemy import Connection

from lifesign.channels import service as channels
from lifesign.channels.rules import User
from lifesign.clock import EpochMs
from lifesign.faults import invalid
from lifesign.incidents import attention
from lifesign.projects import service as projects


def fallback_channel(conn: Connection, project_id: str) -> str | None:
    """The fallback channel of a project."""
    return projects.fallback_channels(conn, {project_id}).get(project_id)


def change_fallback_channel(conn: Connection, project_id: str, channel_id: str | None, now: EpochMs) -> str | None:
    """Set or clear (None) it; what is unattended already is told to a new one at once. Raises InvalidInput."""
    if channel_id is not None and channel_id not in channels.known_channels(conn, project_id, [channel_id]):
        raise invalid("fallbackChannel", "unknown channel")
    if channel_id != fallback_channel(conn, project_id):
        projects.set_fallback_channel(conn, project_id, channel_id)
        if channel_id is not None:
            attention.remind_now(conn, project_id, now)
    return channel_id


class SettingsAsChannelUser:
    """A project's settings name its fallback channel."""

    def channel_users(self, conn: Connection, project_id: str, channel_id: str) -> list[User]:
        """The settings, if this is the fallback channel."""
        is_named = fallback_channel(conn, project_id) == channel_id
        return [User("settings", project_id, "fallbackChannel")] if is_named else []

    def detach_channel(self, conn: Connection, project_id: str, channel_id: str, *, key_id: str, now: EpochMs) -> None:
        """Go on without a fallback channel."""
        del key_id, now
        if fallback_channel(conn, project_id) == channel_id:
            projects.set_fallback_channel(conn, project_id, None)
