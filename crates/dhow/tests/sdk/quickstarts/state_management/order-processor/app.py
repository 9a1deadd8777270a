"""Saves, reads and deletes orders."""

import json

from dapr.clients import DaprClient

with DaprClient() as client:
    for number in range(1, 4):
        order = {'orderId': str(number)}
        client.save_state('statestore', order['orderId'], json.dumps(order))
        print(f'Saving Order: {order}', flush=True)
        print(f'Result after get: {client.get_state("statestore", order["orderId"]).data}', flush=True)
        client.delete_state('statestore', order['orderId'])
        print(f'Deleting Order: {order}', flush=True)
