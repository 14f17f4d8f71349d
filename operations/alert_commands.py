"""`zambezi alerts`: whether persons are reached."""

from __future__ import annotations

import os
import sys

import click

from operations import alert_channels, alerting, alerts
from zambezi import clock, config
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment


@click.group("alerts")
def alerts_group() -> None:
    """The channel by which persons are told that something waits."""


@alerts_group.command("test")
def test() -> None:
    """Send a test message by every configured way; exit code 1 where one fails."""
    environment = Environment.read()
    settings = config.load(environment.config_dir, os.environ).zambezi
    ways = alert_channels.ways(settings.alerts, environment.home)
    if not ways:
        raise click.ClickException("Zambezi.Alerts names neither a Webhook nor Mail; see orthanc-config/README.md")
    opened = sessions(connect(environment.database_url, "console"), "console")
    failures = 0
    for way in ways:
        why = alerting.Teller(opened, way, settings.alerts, settings.site, clock.now).tell(alerts.Message("test"))
        click.echo(f"{way.name}: {why or 'told'}")
        failures += bool(why)
    sys.exit(1 if failures else 0)
