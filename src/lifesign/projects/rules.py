"""What is true of projects."""

DEFAULT_PROJECT = "default"


class ProjectNotFound(Exception):
    """No project has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"project {name} does not exist")
        self.name = name
