"""A component over Elastic's Python client. Its units report the field `message` of their configurations."""

import asyncio
import json
import os
import signal
import sys

import elastic_agent_client.generated.elastic_agent_client_pb2 as proto
from elastic_agent_client.client import V2Options, VersionInfo
from elastic_agent_client.handler.checkin import BaseCheckinHandler
from elastic_agent_client.reader import new_v2_from_reader
from elastic_agent_client.service.checkin import CheckinV2Service
from elastic_agent_client.util.async_tools import AsyncQueueIterator


class Units(BaseCheckinHandler):
    def __init__(self, client):
        super().__init__(client)
        self.messages = {}

    async def apply_from_client(self):
        for unit in self.client.units:
            # The agent omits configurations that were confirmed.
            if unit.config.id or unit.config.type:
                source = unit.config.source
                if "signed" in source.fields:
                    print("signed", source["signed"]["data"], flush=True)
                self.messages[unit.id] = source["message"] if "message" in source.fields else "no message"
            unit.state = unit.expected_state
            unit.state_msg = self.messages.get(unit.id, "not configured")
        self.client.features_idx = 1


def diagnostics(token, request):
    """One file of the unit or of the component; the output has none, and says so."""
    if request.unit_type == proto.UnitType.OUTPUT:
        result = json.dumps({"error": "no diagnostics of outputs"}).encode()
        return proto.ActionResponse(token=token, id=request.id, status=proto.ActionResponse.FAILED, result=result)
    what = request.unit_id or "component"
    file = proto.ActionDiagnosticUnitResult(
        name="test", filename=f"{what}.txt", description="a file", content_type="text/plain", content=what.encode()
    )
    return proto.ActionResponse(token=token, id=request.id, diagnostic=[file])


async def actions(client):
    responses = asyncio.Queue()
    await responses.put(proto.ActionResponse(token=client.token, id="init", result=b"{}"))
    async for request in client.client.Actions(AsyncQueueIterator(responses)):
        params = json.loads(request.params)
        if request.type == proto.ActionRequest.DIAGNOSTICS:
            await responses.put(diagnostics(client.token, request))
            continue
        command = params["data"].get("command")
        if command == "hang":
            continue
        if command == "exit":
            os._exit(3)
        if command == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        failed = command == "fail"
        result = {"error": "told to fail"} if failed else {"name": request.name, "unit": request.unit_id, "params": params}
        status = proto.ActionResponse.FAILED if failed else proto.ActionResponse.SUCCESS
        answer = proto.ActionResponse(token=client.token, id=request.id, status=status, result=json.dumps(result).encode())
        await responses.put(answer)


async def main():
    print("pid", os.getpid(), flush=True)
    client = new_v2_from_reader(sys.stdin.buffer, VersionInfo(name="fake", meta={"input": "fake"}), V2Options())
    service = CheckinV2Service(client, Units(client))
    service.CHECKIN_INTERVAL = 0.1
    await asyncio.gather(service.run(), actions(client))


asyncio.run(main())
