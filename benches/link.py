#!/usr/bin/env python3
"""link.py [--delay MS] [--rate BYTES] LISTEN:HOST:PORT...: a line between this machine and hosts.

Every connection to 127.0.0.1:LISTEN goes on to HOST:PORT, MS milliseconds later in each direction; all of them together
send at most BYTES a second towards the hosts. On SIGTERM the bytes that went there are printed."""
import argparse
import asyncio
import signal
import time

parser = argparse.ArgumentParser()
parser.add_argument("--delay", type=float, default=0)
parser.add_argument("--rate", type=float, default=0)
parser.add_argument("ways", nargs="+")
arguments = parser.parse_args()
delay = arguments.delay / 1000
sent = 0
free_at = 0.0


async def pace(count):
    global free_at
    if not arguments.rate:
        return
    now = time.monotonic()
    free_at = max(free_at, now) + count / arguments.rate
    if free_at - now > 0.002:
        await asyncio.sleep(free_at - now)


async def forward(reader, writer, outward):
    global sent
    # What is under way: as much as a long line holds.
    queue = asyncio.Queue(4096)

    async def read():
        try:
            while chunk := await reader.read(1 << 18):
                await queue.put((time.monotonic() + delay, chunk))
        except ConnectionError:
            pass
        await queue.put((time.monotonic() + delay, None))

    reading = asyncio.create_task(read())
    try:
        while True:
            due, chunk = await queue.get()
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if chunk is None:
                break
            if outward:
                sent += len(chunk)
                for at in range(0, len(chunk), 1 << 14):
                    piece = chunk[at : at + (1 << 14)]
                    await pace(len(piece))
                    if arguments.rate:
                        writer.write(piece)
                        await writer.drain()
            if not (outward and arguments.rate):
                writer.write(chunk)
                await writer.drain()
        writer.write_eof()
    except (ConnectionError, OSError):
        pass
    finally:
        reading.cancel()


async def main():
    servers = []
    for way in arguments.ways:
        listen, host, port = way.split(":")

        async def serve(reader, writer, host=host, port=int(port)):
            try:
                far_reader, far_writer = await asyncio.open_connection(host, port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(forward(reader, far_writer, True), forward(far_reader, writer, False))
            writer.close()
            far_writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", int(listen), limit=1 << 18))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    print(sent, flush=True)


asyncio.run(main())
