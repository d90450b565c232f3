"""How many machines a deployment takes: `flicker size`, from laws that `make scaling` measured."""
