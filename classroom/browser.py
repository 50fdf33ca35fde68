"""What a student does, by what a browser does: pages, cookies, and a websocket to the kernel."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from uuid import uuid4

from aiohttp import ClientSession, ClientTimeout, CookieJar, WSMsgType
from yarl import URL

from classroom.student import ADDRESSES, DISK, SECRET, Student


class ClassroomError(Exception):
    """A student cannot go on; the message says why."""


class Browser:
    """The browser of a student, to be made where an event loop runs.

    Args:
        student: Who works with it; what happens is noted there.
        url: The address of the Hub.
    """

    def __init__(self, student: Student, url: str):
        self.student = student
        self.url = url
        self.doing = ""
        self.executed = 0
        self.web = ClientSession(
            url,
            cookie_jar=CookieJar(unsafe=True),  # also from an address of numbers
            raise_for_status=True,
            timeout=ClientTimeout(total=None),
        )

    async def attend(self, limit: float):
        """Go through the student's lesson.

        Args:
            limit: After how many seconds to give up.
        """
        start = monotonic()
        async with self.noting_loss(limit):
            await self.sign_in()
            await self.start_server()
            await self.run_lesson()
            self.student.seconds = monotonic() - start

    @asynccontextmanager
    async def noting_loss(self, limit: float) -> AsyncIterator[None]:
        """Note why the student is lost, if something fails or is not done within a limit."""
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError:
            self.student.lost = f"{self.doing}: not done within {limit:.0f} s"
        except Exception as problem:
            self.student.lost = f"{self.doing}: {type(problem).__name__}: {problem}"

    async def sign_in(self):
        """Post the login form."""
        self.doing = "sign-in"
        async with self.web.get("/hub/login"):
            pass
        form = {
            "username": self.student.name,
            "password": self.student.password,
            "_xsrf": self.xsrf("/hub/"),
        }
        async with self.web.post("/hub/login", data=form):
            pass

    async def start_server(self):
        """Ask for a server, wait as the Hub's page does, and open JupyterLab on the lesson."""
        self.doing = "start of the server"
        async with self.web.get("/hub/spawn"):
            pass
        progress = f"/hub/api/users/{self.student.name}/server/progress"
        async with self.web.get(progress, headers={"X-XSRFToken": self.xsrf("/hub/")}) as events:
            async for line in events.content:
                if line.startswith(b"data:"):
                    event = json.loads(line.removeprefix(b"data:"))
                    if event.get("failed"):
                        raise ClassroomError(event["message"])
        async with self.web.get(
            f"/user/{self.student.name}/lab/tree/notebooks/{self.student.lesson}"
        ):
            pass

    async def run_lesson(self):
        """Run all cells, one after the other, in a kernel of the student's server."""
        self.doing = "start of the kernel"
        path = f"notebooks/{self.student.lesson}"
        async with self.web.get(f"/user/{self.student.name}/api/contents/{path}") as answer:
            cells = (await answer.json())["content"]["cells"]
        async with self.web.post(
            f"/user/{self.student.name}/api/sessions",
            json={"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}},
            headers={"X-XSRFToken": self.xsrf(f"/user/{self.student.name}/")},
        ) as answer:
            self.kernel = (await answer.json())["kernel"]["id"]
        async with self.connected():
            for i, cell in enumerate(cells, start=1):
                if cell["cell_type"] == "code":
                    self.doing = f"{self.student.lesson}, cell {i} of {len(cells)}"
                    await self.execute(cell["source"])

    @asynccontextmanager
    async def connected(self):
        """While there is a websocket to the kernel; it is closed when nobody reads it.

        aiohttp answers a ping only while somebody reads, and the server hangs up on the silent.
        """
        self.socket = await self.connect()
        try:
            yield
        finally:
            await self.socket.close()

    async def connect(self):
        """Open a websocket; what the kernel said to this session meanwhile comes through it."""
        address = f"/user/{self.student.name}/api/kernels/{self.kernel}/channels"
        session = {"session_id": self.student.name}
        return await self.web.ws_connect(address, params=session, max_msg_size=0)

    async def messages(self):
        """What the kernel says. As JupyterLab does, make a connection anew that breaks."""
        while True:
            async for message in self.socket:
                if message.type is WSMsgType.TEXT:
                    yield message.json()
            self.student.reconnected += 1
            await asyncio.sleep(1)
            self.socket = await self.connect()

    async def execute(self, source: str = "", **wanted: str) -> dict:
        """Run a cell.

        Args:
            source: Its code.
            **wanted: Expressions of which to know the values after it.

        Returns:
            For each of these expressions its value, or the error.

        Raises:
            ClassroomError: if the cell fails, or the kernel dies.
        """
        header = {"msg_id": uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
        header |= {"session": self.student.name, "username": self.student.name}
        content = {"code": source, "user_expressions": wanted, "allow_stdin": False}
        await self.socket.send_json(
            {
                "channel": "shell",
                "header": header,
                "parent_header": {},
                "metadata": {},
                "content": content,
            }
        )
        async for message in self.messages():
            content = message["content"]
            if content.get("execution_state") in ("dead", "restarting"):
                raise ClassroomError("the kernel died")
            if (
                message["msg_type"] == "execute_reply"
                and message["parent_header"]["msg_id"] == header["msg_id"]
            ):
                if content["status"] != "ok":
                    raise ClassroomError(f"{content.get('ename')}: {content.get('evalue')}")
                if content["execution_count"] < self.executed:  # while nobody read
                    raise ClassroomError("the kernel died, and another took its place")
                self.executed = content["execution_count"]
                return content["user_expressions"]

    async def ways_to_file(self, owner: Student) -> set[str]:
        """The ways by which this student can open the secret file of an owner.

        Another's file has to be refused: a page that asks for consent, say, counts as a way.
        """
        self.doing = f"opening the file of {owner.name}"
        ways = set()
        for way, address in ADDRESSES.items():
            url = f"/user/{owner.name}/{address}/{SECRET}"
            async with self.web.get(url, raise_for_status=False) as answer:
                refused = owner is self.student or answer.status == 403
                if owner.secret in await answer.text() or not refused:
                    ways.add(way)
        path = str(owner.home / SECRET)
        async with self.connected():
            if owner.secret in str(await self.execute(text=f"open({path!r}).read()")):
                ways.add(DISK)
        return ways

    async def spy(self, other: Student, limit: float):
        """Try to open one's own secret file, for comparison, and then that of another.

        Args:
            other: The owner of the other file.
            limit: After how many seconds to give up.
        """
        async with self.noting_loss(limit):
            self.student.own = await self.ways_to_file(self.student)
            if other is not self.student:
                self.student.foreign = await self.ways_to_file(other)

    async def leave(self):
        """Close the browser."""
        await self.web.close()

    def xsrf(self, path: str) -> str:
        """The token against forged requests that the pages below a path have set."""
        return self.web.cookie_jar.filter_cookies(URL(self.url + path))["_xsrf"].value
