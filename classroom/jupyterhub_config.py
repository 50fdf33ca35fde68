"""The Hub of the load test: each student has a password, a home and, if possible, a user id."""

import json
import os
import sys
from hmac import compare_digest
from pathlib import Path

from jupyterhub.auth import Authenticator

plan = json.loads(Path(os.environ["CLASSROOM"]).read_text())
students = plan["students"]


class Passwords(Authenticator):
    """One password for each student, checked when the login form is posted."""

    async def authenticate(self, handler, data):
        """The name of the student who knows the password, or None."""
        student = students.get(data["username"])
        if student and compare_digest(student["password"], data["password"]):
            return data["username"]


def use_own_uid(spawner):
    """Give the server the user id of its student."""
    uid = students[spawner.user.name]["uid"]
    if uid is not None:
        spawner.popen_kwargs = {"user": uid, "group": uid, "extra_groups": []}


c = get_config()  # noqa: F821

c.JupyterHub.bind_url = plan["url"]
c.JupyterHub.hub_bind_url = plan["hub_url"]
c.ConfigurableHTTPProxy.api_url = plan["proxy_url"]
c.ConfigurableHTTPProxy.command = plan["proxy"]

c.JupyterHub.authenticator_class = Passwords
c.Authenticator.allowed_users = set(students)

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = plan["homes"]
c.Spawner.pre_spawn_hook = use_own_uid
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]  # where no student can have a user id of their own
c.Spawner.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.Spawner.environment = {"OMP_NUM_THREADS": "1"}  # as in binder/start
c.Spawner.start_timeout = c.Spawner.http_timeout = 600  # run.py has a limit of its own
