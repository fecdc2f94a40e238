"""What diagnosis refuses to do, free of HTTP: the exceptions of this slice. Its `rules` are a package of rules."""


class PacketNotFound(Exception):
    """The project has no packet with this id."""


class IssueNotFound(Exception):
    """The packet holds no issue with this fingerprint."""


class DiagnosisBusy(Exception):
    """Another diagnosis of the project took longer than this one could wait."""


class DiagnosisTimeout(Exception):
    """The diagnosis took too long and was given up; nothing was stored."""


class WindowOverlapsPacket(Exception):
    """Nothing of the window lies behind the packet that it is to verify."""
