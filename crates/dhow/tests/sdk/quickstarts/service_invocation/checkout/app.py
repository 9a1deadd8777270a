"""Hands orders to another app: an HTTP request to the sidecar that names the app in a header."""

import json
import os
import time
import urllib.error
import urllib.request

url = f'http://localhost:{os.environ["DAPR_HTTP_PORT"]}/orders'
headers = {'dapr-app-id': 'order-processor', 'content-type': 'application/json'}


def hand_over(order):
    """The other app may not listen yet."""
    for _ in range(600):
        try:
            return urllib.request.urlopen(urllib.request.Request(url, order.encode(), headers))
        except urllib.error.HTTPError:
            time.sleep(0.1)
    raise TimeoutError(url)


for number in range(1, 4):
    order = json.dumps({'orderId': number})
    hand_over(order)
    print(f'Order passed: {order}', flush=True)
