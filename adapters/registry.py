"""Which systems there are: our own, those of installed packages, and those in files that a user names."""

import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from adapters.base import Adapter
from adapters.bigcommerce import BigCommerce
from adapters.dynamics import Dynamics
from adapters.facts import mistakes
from adapters.freshdesk import Freshdesk
from adapters.hubspot import HubSpot
from adapters.magento import Magento
from adapters.mailchimp import Mailchimp
from adapters.marketo import Marketo
from adapters.pipedrive import Pipedrive
from adapters.rest import RestAdapter
from adapters.salesforce import Salesforce
from adapters.shopify import Shopify
from adapters.sugarcrm import SugarCRM
from adapters.zendesk import Zendesk
from adapters.zoho import Zoho
from model.errors import ConfigurationError

ENTRY_POINT = "customer360.adapters"
ADAPTERS: Mapping[str, type[Adapter]] = {
    each.name: each
    for each in (
        BigCommerce,
        Dynamics,
        Freshdesk,
        HubSpot,
        Magento,
        Mailchimp,
        Marketo,
        Pipedrive,
        Salesforce,
        Shopify,
        SugarCRM,
        Zendesk,
        Zoho,
    )
}


def discovered(files: Sequence[Path] = ()) -> dict[str, type[Adapter]]:
    """Return every adapter by its name.

    Args:
        files: Python files with adapter classes.

    Raises:
        ConfigurationError: naming the file or package, the class and the fact that is wrong.
    """
    found = dict(ADAPTERS)
    for where, adapter in (*_packaged(), *_filed(files)):
        problem = next(mistakes(adapter), None)
        if problem is not None:
            raise ConfigurationError(f"{where}: {adapter.__name__}.{problem}")
        if adapter.name in found:
            raise ConfigurationError(f"{where}: {adapter.__name__}.name: there is a system {adapter.name!r} already")
        found[adapter.name] = adapter
    return found


def _packaged() -> Iterator[tuple[str, type[Adapter]]]:
    for point in entry_points(group=ENTRY_POINT):
        where = f"package {point.dist.name if point.dist else '?'}, entry point {point.name}"
        try:
            adapter = point.load()
        except Exception as error:
            raise ConfigurationError(f"{where}: cannot be imported: {error}") from error
        if not (inspect.isclass(adapter) and issubclass(adapter, Adapter)):
            raise ConfigurationError(f"{where}: is no subclass of Adapter")
        yield where, adapter


def _filed(files: Iterable[Path]) -> Iterator[tuple[str, type[Adapter]]]:
    for number, path in enumerate(files):
        if not path.is_file():
            raise ConfigurationError(f"adapters: the file {path} does not exist")
        name = f"c360_adapter_{number}_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ConfigurationError(f"adapters: {path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigurationError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
        classes = [
            each
            for each in vars(module).values()
            if inspect.isclass(each)
            and issubclass(each, Adapter)
            and each.__module__ == name
            and each not in {Adapter, RestAdapter}
        ]
        if not classes:
            raise ConfigurationError(f"{path}: has no class that inherits from Adapter")
        yield from ((str(path), each) for each in classes)
