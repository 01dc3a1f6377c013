"""tuspyserver in an application of FastAPI under uvicorn, as its README shows: tuspyserver_app.py PORT FOLDER.

It runs in the environment of the rivals (`make rivals`), which has none of our packages.
"""

import sys

import uvicorn
from fastapi import FastAPI
from tuspyserver import create_tus_router

if __name__ == "__main__":
    application = FastAPI()
    application.include_router(create_tus_router(prefix="files", files_dir=sys.argv[2], max_size=1 << 40))
    uvicorn.run(application, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
