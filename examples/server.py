"""An image server that changes what it has erased between two pictures, without a restart.

python examples/server.py MODEL_FOLDER [REGISTRY]      (pip install 'rasura[examples]')

curl -X PUT 'localhost:8000/stack?goal=brand&reason=ticket+118'
curl 'localhost:8000/picture?prompt=a+photo+of+a+dog&seed=1' -o dog.png

Whoever reaches PUT and DELETE decides what is erased: put them behind the access control of the rest of the service.
"""

import io
import sys
import threading
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

import rasura
from rasura.patches.errors import NotFoundError, RasuraError
from rasura.registry.apply.receipt import Receipt


def make_app(pipe: Any, registry: str | None = None) -> FastAPI:
    """The server of one pipeline; `registry` as for `rasura.attach`."""
    import torch

    app, drawing = FastAPI(), threading.Lock()  # a scheduler counts its steps, so one picture at a time
    model = rasura.attach(pipe, registry, label="server")

    @app.get("/picture")
    def picture(prompt: str, seed: int = 0, steps: int = 25) -> Response:
        with drawing, model.request():  # one set of patches from the first step to the last
            image = pipe(prompt, num_inference_steps=steps, generator=torch.Generator().manual_seed(seed)).images[0]
        file = io.BytesIO()
        image.save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png")

    @app.put("/stack")
    def switch(goal: str, reason: str = "") -> dict[str, object]:
        return _said(model.switch(goal, reason=reason))

    @app.delete("/stack")
    def revert(reason: str = "") -> dict[str, object]:
        if not model.status().applied:
            raise NotFoundError("nothing is applied: expected patches to take out", hint="GET /stack")
        return _said(model.revert(reason=reason))

    @app.get("/stack")
    def status() -> dict[str, object]:
        found = model.status()
        return {"applied": {p: str(s) for p, s in found.applied.items()}, "drifted": list(found.drifted)}

    @app.exception_handler(RasuraError)
    def refused(_: Request, error: RasuraError) -> JSONResponse:
        said = {"error": error.code, "message": error.message, "hint": error.hint}
        return JSONResponse(said, status_code=404 if isinstance(error, NotFoundError) else 409)

    return app


def _said(receipt: Receipt) -> dict[str, object]:
    return {"applied": {p: str(s) for p, s in receipt.applied.items()}, "digest": receipt.after}


if __name__ == "__main__":
    import torch
    import uvicorn
    from diffusers import DiffusionPipeline

    # One dtype for all parts, whatever each was saved in; of float16 weights, float32 holds every number.
    loaded = DiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
    uvicorn.run(make_app(loaded, *sys.argv[2:3]), host="127.0.0.1")
