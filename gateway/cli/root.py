"""The group of verbs; each is imported only when it is used, so that ``serve`` starts fast."""

from __future__ import annotations

import importlib

import click

_VERBS = {
    "serve": "gateway.cli.serve:serve",
    "apply": "gateway.cli.models:apply",
    "delete": "gateway.cli.models:delete",
    "get": "gateway.cli.get:get",
    "promote": "gateway.cli.rollout:promote",
    "rollback": "gateway.cli.rollout:rollback",
    "traffic": "gateway.cli.rollout:traffic",
    "validate": "gateway.cli.models:validate",
    "schema": "gateway.cli.models:schema",
    "sign": "gateway.cli.sign:sign",
    "verify": "gateway.cli.sign:verify",
    "feedback": "gateway.cli.feedback:feedback",
    "infer": "gateway.cli.infer:infer",
    "doctor": "gateway.cli.doctor:doctor",
    "demo": "gateway.cli.demo:demo",
    "version": "gateway.cli.version:show_version",
}


class LazyGroup(click.Group):
    """Imports a verb's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = _VERBS.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def edgeway() -> None:
    """Device-local inference gateway: answers within a latency budget, on the accelerator or on the CPU.

    Start one with `edgeway serve`, see it work with `edgeway demo`.
    """
