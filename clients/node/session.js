// A run's session over one RecommendLR stream, which opens anew after a failure.
'use strict';

const { randomUUID } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const { status } = require('@grpc/grpc-js');
const { ServiceError, serviceError } = require('./errors');
const { proxyNote } = require('./proxies');

// Five pauses of 1.2 s or more together: longer than a channel waits before it connects again.
const MAX_TRIES = 6;
const FIRST_BACKOFF_MS = 50;
const END_WAIT_MS = 1000;

/**
 * One run. Measurements are answered in order; the first message of each stream carries the opening,
 * so any replica can continue the run.
 */
class RunSession {
  constructor(startCall, opening, deadlineMs, address) {
    this._startCall = startCall;
    this._opening = { ...opening, session: opening.session || randomUUID().replaceAll('-', '') };
    this._deadlineMs = deadlineMs;
    this._address = address;
    this._call = null;
    this._pending = null; // { resolve, reject } of the request under way
    this._queue = Promise.resolve();
    this._closed = false;
    this._answered = false;
  }

  /** Return the answer to a measurement; concurrent calls are answered one after the other. */
  recommend(measurement) {
    const answer = this._queue.then(() => this._recommend(measurement));
    this._queue = answer.catch(() => {});
    return answer;
  }

  /**
   * End the session; a request under way is rejected. If the run has a name and was measured, the
   * service is told that the job has ended, for at most a second; the promise resolves after that.
   */
  close() {
    const ends = this._opening.run && this._answered && this._pending === null && !this._closed;
    this._closed = true;
    if (!ends) {
      this._drop();
      return Promise.resolve();
    }
    const request = { end: true };
    if (this._call === null) {
      this._open();
      request.opening = this._opening;
    }
    const call = this._call;
    this._call = null;
    return new Promise((resolve) => {
      const timer = setTimeout(() => call.cancel(), END_WAIT_MS);
      call.on('error', () => {}); // the run is then silent after a while
      call.on('status', () => (clearTimeout(timer), resolve()));
      call.write(request);
      call.end();
    });
  }

  async _recommend(measurement) {
    const deadline = Date.now() + this._deadlineMs;
    for (let attempt = 1, backoff = FIRST_BACKOFF_MS; ; attempt++, backoff *= 2) {
      try {
        return await this._tryOnce(measurement, deadline);
      } catch (error) {
        this._drop();
        const isLast = attempt >= MAX_TRIES || Date.now() + backoff >= deadline;
        // Sending a measurement twice is safe.
        if (error.code !== status.UNAVAILABLE || this._closed || isLast) throw error;
      }
      await sleep(backoff * (0.8 + 0.4 * Math.random()));
    }
  }

  _tryOnce(measurement, deadline) {
    if (this._closed) {
      const message = 'the session is closed; open the run again';
      return Promise.reject(new ServiceError(message, { code: status.CANCELLED }));
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const message = `the advisor did not answer within ${this._deadlineMs} ms${proxyNote(this._address)}`;
        this._settle('reject', new ServiceError(message, { code: status.DEADLINE_EXCEEDED }));
      }, Math.max(0, deadline - Date.now()));
      this._pending = {
        resolve: (value) => (clearTimeout(timer), resolve(value)),
        reject: (error) => (clearTimeout(timer), reject(error)),
      };
      const request = { measurement };
      if (this._call === null) {
        this._open();
        request.opening = this._opening;
      }
      this._call.write(request);
    });
  }

  _open() {
    const call = this._startCall();
    this._call = call;
    const ended = (error) => {
      if (this._call !== call) return; // an old stream
      this._call = null;
      this._settle('reject', error);
    };
    call.on('data', (response) => {
      if (this._call !== call) return;
      this._answered = true;
      this._settle('resolve', response);
    });
    call.on('error', (error) => ended(serviceError(error, this._address)));
    call.on('end', () => {
      const message = 'the advisor ended the stream: it is shutting down';
      // An error, if there is one, comes after the end.
      setImmediate(() => ended(new ServiceError(message, { code: status.UNAVAILABLE })));
    });
  }

  _settle(how, value) {
    const pending = this._pending;
    this._pending = null;
    if (pending !== null) pending[how](value);
  }

  _drop() {
    const call = this._call;
    this._call = null;
    if (call !== null) {
      call.on('error', () => {}); // cancelling is reported as an error
      call.cancel();
    }
    const message = 'the session was closed';
    this._settle('reject', new ServiceError(message, { code: status.CANCELLED }));
  }
}

module.exports = { RunSession };
