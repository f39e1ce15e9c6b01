"""Where the presets stand: beside the package's modules in a wheel, at the repository's root in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def _folder() -> Path:
    """The folder of the presets; it is known by `default.yaml`, since `configs` is a name that others use too."""
    return next((place for place in _PLACES if (place / "default.yaml").is_file()), _PLACES[0])


def presets() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find(name: str, beside: Path) -> Path:
    """File meant by `name`: the preset of that bare name, else the path, taken from the folder `beside`."""
    if name in presets():
        return _folder() / f"{name}.yaml"
    return beside / Path(name).expanduser()
