//! What an answer of a name server can become on its way, byte for byte.

/// Makes of an answer one that says no more than that it was cut short.
pub fn cut_short(answer: &mut Vec<u8>) {
    answer.truncate(end_of_question(answer));
    answer[2] |= 0x02;
    // Neither answers nor whatever else it had.
    answer[6..12].fill(0);
}

/// Makes one of the things wrong by which a client can tell.
///
/// What it cannot is left as it is: DNS has no sum to be checked, that is UDP's and TCP's matter. Of another address, port
/// or weight, of a record of another type or name than the one asked for, and of another code, it is well-formed to say
/// so, and it is believed until the next answer.
pub fn spoil(answer: &mut [u8], which: usize) {
    let record = end_of_question(answer);
    let half = answer.len() / 2;
    let wrong = match which % WRONGS {
        // The number of the question.
        0 => 0..1,
        // That it is an answer.
        1 => 2..3,
        // The name in question.
        2 => HEAD + 1..HEAD + 2,
        // The type in question, and the class.
        3 => record - 3..record - 2,
        4 => record - 1..record,
        // How many records there are.
        5 => 6..7,
        // Where the name of the first one is, and how long it is.
        6 => record..record + 1,
        7 => record + 10..record + 11,
        // Much.
        _ => half..answer.len(),
    };
    for byte in answer.get_mut(wrong).into_iter().flatten() {
        *byte ^= 0x80;
    }
}

/// Where the records begin.
fn end_of_question(message: &[u8]) -> usize {
    let mut at = HEAD;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

/// How long the head of a message is.
const HEAD: usize = 12;
/// In how many ways it can be wrong.
pub const WRONGS: usize = 9;
