"""Says how often an edge-triggered set tells of input while none is read and the sender goes from
TCP to the ring, and how much of it one receive into many small buffers gets."""

import select
import socket
import time

with socket.create_server(("127.0.0.1", 0)) as listener:
    sender = socket.create_connection(listener.getsockname())
    receiver = listener.accept()[0]
sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
receiver.setblocking(False)
waiting = select.epoll()
waiting.register(receiver, select.EPOLLIN | select.EPOLLET)
told = 0
for _ in range(30):
    sender.send(b"0123456789")
    told += len(waiting.poll(2))
    receiver.send(b"x")
    sender.recv(1)
    time.sleep(0.02)
print(told, receiver.recvmsg_into([bytearray(2) for _ in range(500)])[0])
