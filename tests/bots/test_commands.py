"""The operator's file of programs that do runs."""

from pathlib import Path

import pytest

from lifesign.bots.runners.commands import InvalidCommands, commands_in


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[command.x]\n", "bots.toml, line 1: unknown key"),
        ('[commands.x]\nargv = ["/bin/true"]\nshell = true\n', "bots.toml, line 3: commands.x: unknown key 'shell'"),
        ('[commands.x]\nargv = ["true"]\n', "bots.toml, line 2: commands.x: argv must begin with a program"),
        ('[commands.x]\nargv = "/bin/true"\n', "bots.toml, line 2: commands.x: argv must be a list of texts"),
        ("[commands.x\n", "bots.toml: "),
    ],
)
def test_a_file_of_programs_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "bots.toml").write_text(text)

    with pytest.raises(InvalidCommands) as refused:
        commands_in(tmp_path)

    assert told in str(refused.value)
