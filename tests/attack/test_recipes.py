"""That the attack leaves nothing out: a recipe for every public name, and a case for every argument."""

import inspect

from tests.attack.calls import parameters, public
from tests.attack.recipes import RECIPES


def test_every_public_name_has_a_recipe():
    called = {recipe.function for recipe in RECIPES}
    made = {name: value for name, value in public().items() if not inspect.isabstract(value)}
    missing = [name for name, value in made.items() if name not in called]
    assert not missing, "each needs a Recipe in tests/attack/recipes, with what its arguments accept"


def test_every_argument_of_a_public_name_is_attacked():
    named = public()
    attacked = {(recipe.function, argument) for recipe in RECIPES for argument in recipe.arguments}
    called = {recipe.function for recipe in RECIPES} & named.keys()
    missing = [(name, each) for name in called for each in parameters(named[name]) if (name, each) not in attacked]
    assert not missing, "each needs an Argument in its Recipe, in tests/attack/recipes"
