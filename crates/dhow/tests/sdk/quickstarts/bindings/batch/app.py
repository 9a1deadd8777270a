"""Keeps a batch of orders each time the clock says so."""

import json
import os

from dapr.clients import DaprClient
from flask import Flask

app = Flask(__name__)
ORDERS = [{'orderid': 1, 'customer': 'John Smith', 'price': 100.32}, {'orderid': 2, 'customer': 'Jane Bond', 'price': 15.4}]


@app.route('/cron', methods=['POST'])
def process_batch():
    print('Processing batch..', flush=True)
    with DaprClient() as client:
        for order in ORDERS:
            name = f'{order["orderid"]}.json'
            client.invoke_binding('orders', 'create', json.dumps(order), {'fileName': name})
            kept = json.loads(client.invoke_binding('orders', 'get', '', {'fileName': name}).text())
            print(f'kept order {kept["orderid"]} of {kept["customer"]}', flush=True)
    print('Finished processing batch', flush=True)
    return 'Finished processing batch'


app.run(port=int(os.environ['APP_PORT']))
