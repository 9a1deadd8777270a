"""Takes orders from callers."""

import os

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.route('/orders', methods=['POST'])
def orders():
    print(f'Order received : {request.data}', flush=True)
    return jsonify(success=True)


app.run(port=int(os.environ['APP_PORT']))
