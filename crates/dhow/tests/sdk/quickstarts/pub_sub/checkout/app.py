"""Publishes orders."""

import json

from dapr.clients import DaprClient

with DaprClient() as client:
    for number in range(1, 4):
        order = json.dumps({'orderId': number})
        client.publish_event('orderpubsub', 'orders', order, data_content_type='application/json')
        print(f'Published data: {order}', flush=True)
