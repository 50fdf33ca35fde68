"""What a student does, by what a browser does: pages, cookies, and a websocket to the kernel."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from time import monotonic

from aiohttp import ClientSession, ClientTimeout, ClientWebSocketResponse, CookieJar, WSMsgType
from jupyter_client.session import Session
from yarl import URL

PASSWORD = token_urlsafe()  # of the whole class
ADDRESSES, DISK = {"the contents API": "api/contents", "a download": "files"}, "the disk"
WAYS = {*ADDRESSES, DISK}


@dataclass
class Student:
    """An account with a home, a lesson to run in it, and how that went."""

    name: str
    lesson: str
    home: Path
    hub: str  # its address
    cookies: CookieJar | None = None
    socket: ClientWebSocketResponse | None = None
    doing: str = ""
    lost: str | None = None  # why the lesson was not finished
    seconds: float | None = None  # from the sign-in to the end of the last cell
    reconnected: int = 0
    own: set[str] = field(default_factory=set)  # the ways that led to this student's own file
    foreign: set[str] = field(default_factory=set)  # and to that of another

    async def within(self, limit: float, work):
        """Work in a browser; if that fails or takes too many seconds, the student is lost."""
        self.cookies = self.cookies or CookieJar(unsafe=True)  # also from 127.0.0.1
        options = {"cookie_jar": self.cookies, "timeout": ClientTimeout(total=None)}
        async with ClientSession(self.hub, **options) as self.web:
            try:
                await asyncio.wait_for(work, limit)
            except TimeoutError:
                self.lost = f"{self.doing}: not done within {limit:.0f} s"
            except Exception as problem:
                self.lost = f"{self.doing}: {type(problem).__name__}: {problem}"
            if self.socket:  # aiohttp answers no ping while nobody reads
                await self.socket.close()

    async def attend(self):
        """Sign in, start a server, and run the lesson in it, one cell after the other."""
        start, server, path = monotonic(), f"/user/{self.name}", f"notebooks/{self.lesson}"
        self.doing = "sign-in"
        await self.ask("/hub/login")
        await self.ask("/hub/login", data={"username": self.name, "password": PASSWORD})
        self.doing = "start of the server"
        await self.ask("/hub/spawn")
        progress = await self.ask(f"/hub/api/users/{self.name}/server/progress")  # to its end
        if json.loads(end := progress.rpartition("data:")[2]).get("failed"):
            raise RuntimeError(end.strip())
        await self.ask(f"{server}/lab/tree/{path}")
        self.doing = "start of the kernel"
        cells = json.loads(await self.ask(f"{server}/api/contents/{path}"))["content"]["cells"]
        wanted = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        kernel = json.loads(await self.ask(f"{server}/api/sessions", json=wanted))["kernel"]
        self.channels = f"{server}/api/kernels/{kernel['id']}/channels?session_id={self.name}"
        self.socket = await self.web.ws_connect(self.channels, max_msg_size=0)
        for i, cell in enumerate(cells, start=1):
            if cell["cell_type"] == "code":
                self.doing = f"{self.lesson}, cell {i} of {len(cells)}"
                reply = await self.execute(cell["source"])
                if reply["status"] != "ok":
                    raise RuntimeError(f"{reply.get('ename')}: {reply.get('evalue')}")
        self.seconds = monotonic() - start

    async def ask(self, path: str, **sent) -> str:
        """The text of a page, which is shown its cookie against forged requests."""
        cookie = self.cookies.filter_cookies(URL(self.hub + path)).get("_xsrf")
        shown = {"X-XSRFToken": cookie.value} if cookie else {}
        async with self.web.request("POST" if sent else "GET", path, headers=shown, **sent) as page:
            page.raise_for_status()
            return await page.text()

    async def execute(self, code: str) -> dict:
        """The kernel's reply. As JupyterLab does, connect again when the connection breaks."""
        request = Session().msg("execute_request", {"code": code}) | {"channel": "shell"}
        await self.socket.send_str(json.dumps(request, default=str))
        while True:
            async for message in self.socket:
                said = message.json() if message.type is WSMsgType.TEXT else {"content": {}}
                if said["content"].get("execution_state") in ("dead", "restarting"):
                    raise RuntimeError("the kernel died")
                if said.get("msg_type") == "execute_reply":
                    return said["content"]
            self.reconnected += 1
            await asyncio.sleep(1)  # what is said meanwhile, the server keeps for this session
            self.socket = await self.web.ws_connect(self.channels, max_msg_size=0)

    async def spy(self, owner: "Student"):
        """Note the ways to one's own file, or to another's, where all but a clear no is a way."""
        self.doing, file = f"opening the file of {owner.name}", f"notebooks/{owner.lesson}"
        ways = self.own if owner is self else self.foreign
        for way, address in ADDRESSES.items():
            async with self.web.get(f"/user/{owner.name}/{address}/{file}") as page:
                if "nbformat" in await page.text() or (owner is not self and page.status != 403):
                    ways.add(way)
        self.socket = await self.web.ws_connect(self.channels, max_msg_size=0)
        reply = await self.execute(f"open({str(owner.home / file)!r}).read()")
        if reply["execution_count"] == 1:
            raise RuntimeError("the kernel died, and another took its place")
        if reply["status"] == "ok":
            ways.add(DISK)
