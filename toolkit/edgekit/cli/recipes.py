"""`edgekit recipes`: list, show and check recipes, and publish their schema."""

from __future__ import annotations

import click

from edgekit.cli.screen import reporting, show_json, table


@click.group("recipes")
def command() -> None:
    """List, show and check recipes."""


@command.command("list")
@reporting
def list_recipes(as_json: bool) -> None:
    """List the recipes that come with edgekit.

    Example: edgekit recipes list
    """
    from edgekit.core.places import shipped
    from edgekit.recipe.check import read_recipe

    found = [read_recipe(p) for p in sorted(shipped("recipes").glob("*.yaml"))]
    rows = [(c.path.stem, c.recipe.description) for c in found]
    if as_json:
        show_json([{"name": n, "description": d} for n, d in rows])
        return
    table(("recipe", "what it does"), rows)


@command.command("show")
@click.argument("name")
@reporting
def show(name: str, as_json: bool) -> None:
    """Print a recipe, to copy and edit.

    Example: edgekit recipes show hierlight-yolo-n-mini > mine.yaml
    """
    from edgekit.jobs.api import find_recipe
    from edgekit.recipe.check import read_recipe

    checked = read_recipe(find_recipe(name))
    if as_json:
        show_json(checked.recipe)
        return
    click.echo(checked.text, nl=False)


@command.command("check")
@click.argument("recipe")
@reporting
def check(recipe: str, as_json: bool) -> None:
    """Check a recipe and report every fault with its line.

    Example: edgekit recipes check cam.yaml
    """
    from edgekit.jobs.api import find_recipe
    from edgekit.recipe.check import read_recipe

    checked = read_recipe(find_recipe(recipe))
    if as_json:
        show_json({"recipe": checked.path, "faults": []})
        return
    click.echo(f"{checked.path}: no faults ({len(checked.steps)} passes, {len(checked.recipe.gates)} gates)")


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors.

    Example: edgekit recipes schema > recipe.schema.json
    """
    from edgekit.recipe.schema import recipe_schema

    show_json(recipe_schema())
