"""The Flask application around one process's services."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import BaseConverter

from app import errors
from app.access import Access
from app.context import EXTENSION, Context
from app.door import Door
from app.health import Health
from app.hosts import Hosts
from app.routes import assets, failures, health, ingests, jobs, uploads
from app.waiting_places import WaitingPlaces
from pipeline.services import Services
from pipeline.variants.waiting import VariantWaits


class Everything(BaseConverter):
    """The rest of the path, whatever it is: empty segments too. `AssetPath` says what is wrong with it."""

    regex = "(?s:.*)"
    part_isolating = False


def create(services: Services) -> Flask:
    app = Flask("millrace", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.url_map.converters["everything"] = Everything
    context = Context(
        services=services,
        waiting_places=WaitingPlaces(services.settings.web.threads),
        waits=VariantWaits(services.metadata.variants.states),
        health=Health(services),
    )
    app.extensions[EXTENSION] = context
    errors.register(app)
    for module in (uploads, assets, ingests, failures, jobs, health):
        app.register_blueprint(module.blueprint)
    guarded = Hosts(Door(context, app.wsgi_app), services.settings.web.hosts)
    app.wsgi_app = Access(guarded)  # type: ignore[method-assign]  # Flask's documented way
    return app
