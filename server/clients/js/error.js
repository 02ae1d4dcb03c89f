/** Why a request, a subscription or the whole client came to nothing: a code and a sentence. */
export class ValtronicsError extends Error {
  name = 'ValtronicsError';

  /**
   * `code` is one of the API's error codes, or one of this client's: `closed`, `connection_lost`,
   * `overflow`, `protocol_error`, `replaced`, `timeout`.
   */
  constructor(code, message, details) {
    super(message ?? code);
    this.code = code;
    Object.assign(this, details);
  }
}

/** Makes the error of a response that says no. */
export const refusal = (response) => new ValtronicsError(response.error, response.message, { response });
