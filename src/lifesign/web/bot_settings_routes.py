"""HTTP of the bots' part of a project's settings: plan, budget period, limits, and who is told."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.bots import service
from lifesign.bots.bodies import Fields
from lifesign.bots.rules import BotsRefusal
from lifesign.http.context import context_of
from lifesign.web import bot_forms
from lifesign.web.access import form_for
from lifesign.web.bot_routes import asking, ticked, typed_of
from lifesign.web.routes import to
from lifesign.web.settings_routes import settings_page

router = APIRouter(include_in_schema=False)


@router.post("/settings/bots")
async def change(request: Request) -> Response:
    """Change what is set for the bots of the project."""
    person, form = await form_for(request, "bots:admin")
    typed = typed_of(form, bot_forms.SETTING_FIELDS) | {"notify_channels": ticked(form, "channel-")}
    try:
        fields = Fields(bot_forms.settings_body(typed))
        await context_of(request).db.write(service.change_settings, asking(request, person), fields)
    except BotsRefusal as error:
        faults = bot_forms.faults_of(error, bot_forms.SETTING_FIELDS)
        return await settings_page(request, person, faults, typed)
    return to("/settings#bots")
