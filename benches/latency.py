"""latency.py SERVER PORT SECONDS: passes TCP on from 127.0.0.1:PORT to 127.0.0.1:SERVER, SECONDS later each way.

A connection is answered by the kernel at once, so one round trip less is seen than on a real way.
"""

import asyncio
import sys

server, port, delay = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


async def passes(reader, writer):
    waiting = asyncio.Queue()

    async def take():
        loop = asyncio.get_running_loop()
        while piece := await reader.read(1 << 16):
            waiting.put_nowait((loop.time() + delay, piece))
        waiting.put_nowait((loop.time() + delay, b""))

    async def give():
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await waiting.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.close()

    await asyncio.gather(take(), give(), return_exceptions=True)


async def connected(reader, writer):
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server)
    await asyncio.gather(passes(reader, far_writer), passes(far_reader, writer), return_exceptions=True)


async def main():
    async with await asyncio.start_server(connected, "127.0.0.1", port) as listening:
        await listening.serve_forever()


asyncio.run(main())
