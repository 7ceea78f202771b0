//! The gateway over a websocket, for browsers, whose requests can't stream (reference/http.md section 6): each text of the
//! client is a piece of the body, each line of the answer a text. Errors arrive as lines, too; there is no status.

use super::{Asked, Source};
use crate::answers::Body;
use crate::backend::Member;
use crate::dispatch::Port;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::SinkExt as _;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Texts of the client that are read ahead of the call.
const AHEAD: usize = 4;

/// Whether a websocket is asked for.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_word(headers, &CONNECTION, "upgrade") && has_word(headers, &UPGRADE, "websocket")
}

fn has_word(headers: &HeaderMap, name: &http::HeaderName, word: &str) -> bool {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|given| given.trim().eq_ignore_ascii_case(word))
}

/// Answers the handshake; the call begins on what the connection becomes.
///
/// # Errors
/// The handshake is none that RFC 6455 section 4.2.1 knows.
pub(crate) fn upgrade<M: Member>(
    port: Arc<Port<M>>,
    mut request: Request<Incoming>,
    path: String,
) -> Result<Response<Body>, StatusCode> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !has_word(headers, &SEC_WEBSOCKET_VERSION, "13") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let Some(key) = key else { return Err(StatusCode::BAD_REQUEST) };
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let bearer = has_word(headers, &SEC_WEBSOCKET_PROTOCOL, "bearer");
    let asked = Asked { method: Method::POST, path, headers: credentials(headers) };
    let connection = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(connection) = connection.await else { return };
        let limit = port.limits.max_message().saturating_mul(super::JSON_TIMES);
        let settings = WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(settings)).await;
        talk(port, asked, socket).await;
    });
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        fields.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if bearer {
        fields.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    Ok(response)
}

/// A browser can send no header with a websocket: the token comes as a subprotocol, or as a cookie.
fn credentials(headers: &HeaderMap) -> HeaderMap {
    let mut given = HeaderMap::new();
    let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let token = protocol.and_then(|text| text.split_once(',')).filter(|(word, _)| word.trim() == "Bearer");
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|text| text.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    let token = match token {
        Some((_, token)) => Some(token.trim()),
        None => cookies.find(|(name, _)| *name == "token").map(|(_, token)| token),
    };
    if let Some(value) = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok()) {
        given.insert(AUTHORIZATION, value);
    }
    given
}

/// Holds one call. Whichever side ends, the socket is dropped without a closing handshake, as Go's.
async fn talk<M: Member, S>(port: Arc<Port<M>>, asked: Asked, mut socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (texts, source) = mpsc::channel(AHEAD);
    let mut texts = Some(texts);
    let mut stop = port.stop.clone();
    let (lines, mut answer) = mpsc::channel(AHEAD);
    let call =
        tokio::spawn(async move { read_out(super::serve(port, asked, Source::Texts(source)).await, lines).await });
    loop {
        let room = async {
            match &texts {
                Some(texts) => texts.reserve().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            line = answer.recv() => {
                let Some(line) = line else { break };
                if send(&mut socket, line).await.is_err() { break }
            }
            said = hear(room, &mut socket) => match said {
                Said::Text(mut text) => {
                    text.push(b'\n');
                    // There is room: it was waited for, and nobody else sends.
                    if let Some(texts) = &texts { drop(texts.try_send(text.into())) }
                }
                Said::Nothing => {}
                // The call wants no more.
                Said::Deaf => texts = None,
                Said::Gone => break,
            },
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
        }
    }
    call.abort();
}

enum Said {
    Text(Vec<u8>),
    Nothing,
    Deaf,
    Gone,
}

/// The next the client says, once there is room for it.
async fn hear<S>(room: impl Future<Output = bool>, socket: &mut WebSocketStream<S>) -> Said
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !room.await {
        return Said::Deaf;
    }
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Said::Text(text.as_bytes().to_vec()),
        Some(Ok(Message::Binary(bytes))) => Said::Text(bytes.to_vec()),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Said::Nothing,
        Some(Ok(Message::Close(_)) | Err(_)) | None => Said::Gone,
    }
}

async fn send<S>(socket: &mut WebSocketStream<S>, line: Vec<u8>) -> Result<(), ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let text = String::from_utf8(line).map_err(drop)?;
    socket.send(Message::text(text)).await.map_err(drop)
}

/// Cuts the answer into lines.
async fn read_out(response: Response<Body>, lines: mpsc::Sender<Vec<u8>>) {
    let mut body = response.into_body();
    let mut held: Vec<u8> = Vec::new();
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.into_data() else { break };
        held.extend_from_slice(&data);
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let rest = held.split_off(end + 1);
            let mut line = std::mem::replace(&mut held, rest);
            line.pop();
            if lines.send(line).await.is_err() {
                return;
            }
        }
    }
    if !held.is_empty() {
        drop(lines.send(held).await);
    }
}
