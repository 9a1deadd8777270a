"""Takes orders from a topic, to which it says so when it is asked."""

import os

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.route('/dapr/subscribe', methods=['GET'])
def subscribe():
    return jsonify([{'pubsubname': 'orderpubsub', 'topic': 'orders', 'route': 'orders'}])


@app.route('/orders', methods=['POST'])
def orders():
    print(f'Subscriber received : {request.get_json()["data"]}', flush=True)
    return jsonify(success=True)


app.run(port=int(os.environ['APP_PORT']))
