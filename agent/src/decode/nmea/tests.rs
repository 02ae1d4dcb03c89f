use super::*;
use crate::decode::{Decoder, Format};

/// 2026-01-01T00:00:00Z.
const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

fn read(lines: &str) -> (Vec<String>, String) {
    let mut decoder = Decoder::new(Format::Nmea(Nmea::default()), None);
    let mut samples = Vec::new();
    decoder.feed(lines.as_bytes(), NOW, &mut samples);
    decoder.finish(&mut samples);
    let shown = |sample: Sample| {
        let unit = sample.unit.as_deref().unwrap_or_default();
        let at = sample.at.map_or(String::new(), |at| format!(" @{at}"));
        format!("{}={}{unit}{at}", sample.metric, sample.value)
    };
    let counts = decoder.counts();
    let counts = format!("{} {} {}", counts.good, counts.damaged, counts.foreign);
    (samples.into_iter().map(shown).collect(), counts)
}

/// Puts a right checksum behind the sentence.
fn sentence(body: &str) -> String {
    let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
    format!("${body}*{sum:02X}\r\n")
}

fn check(body: &str, expected: &[&str]) {
    assert_eq!(read(&sentence(body)).0, expected, "{body}");
}

#[test]
fn wind_water_and_depth() {
    check("IIMWV,074,T,05.85,N,A", &["wind_angle_true=74°", "wind_speed_true=5.85kn"]);
    check("IIMWV,336,R,13.41,M,A", &["wind_angle_apparent=336°", "wind_speed_apparent=13.41m/s"]);
    check("IIMWV,336,R,13.41,M,V", &[]);
    check("IIMWV,,,,", &[]);
    check("IIVWR,024,L,018,N,,,,", &["wind_angle_apparent=-24°", "wind_speed_apparent=18kn"]);
    check("IIMWD,046.,T,,M,,N,5.2,M", &["wind_direction_true=46.0°", "wind_speed_true=5.2m/s"]);
    check("YXMTW,15.2,C", &["water_temperature=15.2°C"]);
    check("RAMTW,,C", &[]);
    check("IIDBT,035.53,f,010.83,M,005.85,F", &["depth_below_transducer=10.83m"]);
    check("IIDBT,432.8,f,,M,,F", &["depth_below_transducer=432.8ft"]);
    check("IIDPT,4.1,", &["depth_below_transducer=4.1m"]);
    check("IIDPT,4.1,1.0", &["depth_below_transducer=4.1m", "depth_below_surface=5.1m"]);
    check("IIDPT,4.1,-1.0", &["depth_below_transducer=4.1m", "depth_below_keel=3.1m"]);
    check("IIVHW,,T,,M,06.12,N,11.33,K", &["speed_through_water=6.12kn"]);
}

#[test]
fn compass_engine_and_transducers() {
    check("04HDM,186.5,M", &["heading_magnetic=186.5°"]);
    check(
        "INHDG,180,5,W,10,W",
        &[
            "heading_compass=180°",
            "heading_magnetic=175.0°",
            "heading_true=165.0°",
            "magnetic_deviation=-5°",
            "magnetic_variation=-10°",
        ],
    );
    check("GPROT,10.0,V", &[]);
    check("IIRPM,E,1,2418.2,10.5,A", &["engine_1_revolutions=2418.2rpm", "engine_1_pitch=10.5%"]);
    check(
        "IIXDR,C,19.5,C,AIRTEMP,P,1.02,B,BARO,A,-3.5,D,PITCH,C,,C,ENV",
        &["AIRTEMP=19.5°C", "BARO=1.02bar", "PITCH=-3.5°"],
    );
    check("IIRSA,10.5,A,,V", &["rudder_angle=10.5°"]);
    check("GPXTE,A,A,0.67,L,N", &["cross_track_error=-0.67nmi"]);
    check("GPXTE,A,V,0.67,L,N", &[]);
}

#[test]
fn position_has_the_time_of_the_fix() {
    let rmc = "GPRMC,085412.250,A,5222.3198,N,00454.5784,W,0.58,251.34,010125,,,A";
    let at = " @2025-01-01T08:54:12.250Z";
    let expected = [
        "latitude=52.37199667°",
        "longitude=-4.90964°",
        "speed_over_ground=0.58kn",
        "course_over_ground=251.34°",
    ];
    let expected = expected.map(|value| format!("{value}{at}"));
    assert_eq!(read(&sentence(rmc)).0, expected);
    let gga = "GPGGA,085413,5222.3198,N,00454.5784,E,2,6,1.2,18.893,M,-25.7,M,2.0,0031";
    let both = read(&(sentence(rmc) + &sentence(gga))).0;
    assert_eq!(both.get(4).unwrap(), "fix_quality=2 @2025-01-01T08:54:13Z");
    assert_eq!(both.len(), 4 + 7);
    // Alone it has no date, and one without a fix has no position.
    assert!(read(&sentence(gga)).0.iter().all(|sample| !sample.contains('@')));
    check("GPGGA,085413,,,,,0,0,,,M,,M,,", &["fix_quality=0", "satellites=0"]);
    // Rolled over, in the future, or invalid.
    for rmc in [
        "GPRMC,085412,A,5222.3198,N,00454.5784,E,,,010199,,,A",
        "GPRMC,085412,A,5222.3198,N,00454.5784,E,,,010140,,,A",
    ] {
        check(rmc, &["latitude=52.37199667°", "longitude=4.90964°"]);
    }
    check("GPRMC,085412,V,5222.3198,N,00454.5784,E,,,010125,,,A", &[]);
    check("GPGLL,9959.613,N,02325.928,E,121022,A,D", &["longitude=23.4321333°"]);
}

#[test]
fn sums_are_checked_and_the_rest_is_counted() {
    let good = sentence("YXMTW,15.2,C");
    let wrong = good.replace("15.2", "15.3");
    let lower = good.to_lowercase().replace("$yxmtw", "$YXMTW").replace(",c*", ",C*");
    assert_eq!(read(&format!("{good}{wrong}{lower}")).1, "2 1 0");
    // A device without checksums is believed; on a line that has them one without is torn.
    assert_eq!(read("$YXMTW,15.2,C\r\n$STI,IC,error=4\r\n").1, "1 0 1");
    assert_eq!(
        read(&format!("{good}$YXMTW,15.3,C\r\n")),
        (vec!["water_temperature=15.2°C".into()], "1 0 1".into())
    );
    assert_eq!(read("{\"class\":\"X\"}\r\n\u{a0}x\r\n").1, "0 0 2");
    assert_eq!(read("# a recorder's line\r\n").1, "0 0 0");
    assert_eq!(read(&sentence("PTNTHTM,1,2")), (vec![], "1 0 0".into()));
    let tag = sentence("s:compass,c:1735689600").replace('$', "\\").replace("\r\n", "\\");
    assert_eq!(read(&format!("{tag}{good}")).0, ["water_temperature=15.2°C @2025-01-01T00:00:00Z"]);
    assert_eq!(read(&format!("{}{good}", tag.replace("1735", "1736"))).1, "0 1 0");
}
