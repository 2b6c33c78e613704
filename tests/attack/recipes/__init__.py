"""Valid calls of every public name, each argument with what it accepts."""

from tests.attack.recipes.common import Recipe
from tests.attack.recipes.declaring import DECLARING
from tests.attack.recipes.models import MODELS
from tests.attack.recipes.reading import READING
from tests.attack.recipes.running import RUNNING
from tests.attack.recipes.training import TRAINING

RECIPES: tuple[Recipe, ...] = (*DECLARING, *MODELS, *RUNNING, *TRAINING, *READING)
