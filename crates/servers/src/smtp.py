"""A mail server (aiosmtpd) that keeps what it gets, as it was understood by the parser of Python.

Arguments: port, folder for messages, and how it is spoken to: none, starttls or tls. With one of the latter it wants the
user ada with the password hunter2. It takes nothing for refused@…, and nothing for later@… for now.
"""
import email
import email.policy
import json
import os
import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


class Keeper:
    def __init__(self, folder):
        self.folder = folder
        self.count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused@"):
            return "550 5.1.1 no such user here"
        if address.startswith("later@"):
            return "450 4.2.1 come again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        addresses = lambda name: [address.addr_spec for address in message[name].addresses] if message[name] else []
        letter = {
            "id": message["Message-ID"],
            "sender": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "from": str(message["From"]),
            "to": addresses("To"),
            "cc": addresses("Cc"),
            "subject": str(message["Subject"] or ""),
            "headers": sorted(name.lower() for name in message.keys()),
            "text": message.get_content(),
        }
        self.count += 1
        path = os.path.join(self.folder, f"{self.count}.json")
        with open(path + ".new", "w") as file:
            json.dump(letter, file)
        os.rename(path + ".new", path)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"ada", b"hunter2")
    return AuthResult(success=known, handled=False)


port, folder, security = sys.argv[1:]
options = {}
if security != "none":
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain("certificate.pem", "key.pem")
    options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
    if security == "tls":
        options["ssl_context"] = context
    else:
        options |= {"tls_context": context, "require_starttls": True}
os.makedirs(folder, exist_ok=True)
Controller(Keeper(folder), hostname="127.0.0.1", port=int(port), **options).start()
signal.pause()
